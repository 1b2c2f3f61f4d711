"""Buckets and folders of objects, through obstore."""
