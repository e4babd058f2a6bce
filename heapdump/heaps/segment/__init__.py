"""The segment heap of Windows 10 and later: page ranges, VS and LFH subsegments, large blocks."""
