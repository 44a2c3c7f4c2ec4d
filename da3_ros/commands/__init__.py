"""The commands of ``da3``, one module each: ``add_to`` declares it, ``run`` carries it out."""
