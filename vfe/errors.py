"""What a user did, as opposed to what we did wrong."""


class UserError(Exception):
  """One line that names the place, the value and the remedy.

  `vfe.main` and the tools print it without a stack trace and exit with code 2.
  """
