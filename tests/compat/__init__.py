"""Tests of what makes RecBole run on today's stack."""
