"""Look-up of nodes for dispatchers: a sans-I/O protocol with an asynchronous and a synchronous client."""
