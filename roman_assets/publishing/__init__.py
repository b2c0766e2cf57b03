"""What every step does around its science: skip what is made, publish, record attempts."""
