"""The parts of the HTML report: the commands that each section asks, and the figures beside their answers."""
