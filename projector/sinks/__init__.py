"""Write read models to MongoDB and Redis. Each store has a sink behind small protocols. Only the sinks know how to write."""
