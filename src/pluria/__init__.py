"""Many models out of one; one answer out of many."""
