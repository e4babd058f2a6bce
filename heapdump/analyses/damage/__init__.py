"""Damage: findings explained, candidates, evidence, reports of Windows."""
