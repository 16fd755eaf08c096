"""What an operator does with a data directory besides serving it: verify, back up, restore."""
