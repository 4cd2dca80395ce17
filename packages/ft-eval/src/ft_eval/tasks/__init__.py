"""What is asked: tasks made of items, from files of a person or from packages."""
