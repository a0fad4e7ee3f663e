"""The seven loops. They never import each other; they meet in the database and through wakes."""
