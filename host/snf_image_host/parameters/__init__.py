"""What may be asked for: one table per kind of parameter, the parsers of values, the rules between them."""
