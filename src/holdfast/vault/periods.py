"""How long a vault's writers and collectors wait for one another, unless they are told otherwise."""

from datetime import timedelta

# how long a session that was announced may take to commit before a collector ends it
GRACE = timedelta(days=1)
# what was claimed less long ago stays claimed when its segment goes
RECENT = timedelta(days=14)
