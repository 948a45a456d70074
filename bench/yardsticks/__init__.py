"""What Daybook is measured against: the framework alone, the pattern that it replaces, another package, the bare stores."""
