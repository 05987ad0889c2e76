"""Several sidecars over one PostgreSQL: which of them live, and who owns which session.

A *boot* is one run of one sidecar. It renews its row in `boots` on the database's clock; while it does, it
lives. A session is owned by one boot: `sessions.owner_boot` and `owner_epoch`. The epoch grows with every
change of owner and is part of every commit of the session, so that a former owner's commit touches no row.
"""
