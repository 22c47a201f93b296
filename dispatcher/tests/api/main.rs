//! The management API over HTTP, in process, on a real nats-server.

mod access;
mod accounts;
mod endpoints;
mod projects;
mod support;
mod webhooks;
