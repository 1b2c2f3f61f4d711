"""Data sources: the catalogue that names them, whether it is true, and how they come here."""
