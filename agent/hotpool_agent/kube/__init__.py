"""HTTP client for the API server: requests, watches, credentials, proxy."""
