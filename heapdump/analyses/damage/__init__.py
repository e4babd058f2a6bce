"""What broke: findings explained, candidates, evidence, reports of Windows."""
