"""Records commands: chooses the commands of each batch, decides them, and writes the batch in one transaction."""
