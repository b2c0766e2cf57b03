"""What the interfaces of the Virtual Observatory share: parameters, VOTables, descriptions."""
