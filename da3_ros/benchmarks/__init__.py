"""What ``da3 bench`` measures, one module each; nothing else imports them."""
