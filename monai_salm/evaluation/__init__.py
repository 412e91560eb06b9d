"""How unlearnable are the protected images? Fresh networks are trained on them and scored on clean images."""
