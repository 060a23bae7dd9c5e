"""All of the aggregator's SQL."""
