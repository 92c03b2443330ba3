"""Where images come from, how they are wrapped, and how it is made sure that they are the right ones."""
