"""What a network costs, and figures from finished runs."""
