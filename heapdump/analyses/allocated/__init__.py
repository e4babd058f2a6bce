"""Who allocated blocks: stacks, groups, suppressions."""
