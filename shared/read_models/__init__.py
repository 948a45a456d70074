"""The stored form of the read models, which the projector and the query API share: documents, generations, dead letters."""
