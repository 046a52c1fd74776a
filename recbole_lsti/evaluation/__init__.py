"""Ranking and metrics: RecBole's metrics on both rankings."""
