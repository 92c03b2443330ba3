"""What the families of Unix have in common."""
