"""What people serve FLUX with today, as simple as it goes: the servers that Safelight is measured against."""
