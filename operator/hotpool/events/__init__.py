"""Events about pools, nodes and generators: built, aggregated, recorded."""
