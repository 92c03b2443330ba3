"""Task ConfigureNetwork for the BSDs: each has one back-end of its own (R-NET-11)."""
