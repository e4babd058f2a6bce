"""Who holds blocks: pointer graph, reachability, retained memory."""
