"""Write read models to MongoDB, Redis and the optional stores.

Each store has a sink behind small protocols. Only the sinks know how to write.
"""
