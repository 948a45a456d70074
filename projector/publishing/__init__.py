"""Publishes the events of all ledgers to a broker: NATS with JetStream, or Kafka.

Its driver is imported only where DAYBOOK_PUBLISH_URL is set.
"""
