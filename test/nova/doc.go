// Package nova runs the real Nova for tests, from Debian's packages, beside a
// controller that is its network service: Keystone, RabbitMQ, PostgreSQL,
// placement, Glance, and Nova's API, metadata service, conductor, scheduler and
// a compute service for each host of a lab. All keep to ports and directories of
// their own, and end with the process that started them, however that ends.
//
// It takes minutes, so the build tag nova keeps it out of go test ./...
package nova
