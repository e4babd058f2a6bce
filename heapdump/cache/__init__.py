"""The index: a walk and finished answers on disk, so that the second question about a dump does not walk again."""
