"""The identity provider is at the other end of this wire: OpenID Connect for logins, Keycloak's admin API beside it."""
