"""What is wrong with a home and what it names, and how to mend it."""
