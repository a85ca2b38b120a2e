"""Certification: every method held to the laws on every architecture that can be built tiny."""
