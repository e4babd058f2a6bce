"""What changed between dumps: facts of each dump, matched with each other."""
