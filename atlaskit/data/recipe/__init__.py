"""How the bundled models are made, from packages to cards. Floor 3: it may import the rooms."""
