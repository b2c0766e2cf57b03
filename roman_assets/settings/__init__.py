"""Every setting of an installation, each in one place: environment, TOML files, defaults."""
