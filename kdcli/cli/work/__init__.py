"""What several commands do: resolve what was asked, train it in one process or in many."""
