package main

import (
	"context"
	"time"

	"planck/controller"
	"planck/telemetry"
)

var telemetryOptions = []*option{
	{Sections: []string{"otel"}, Names: []string{"endpoint"}, Computed: "that of OTEL_EXPORTER_OTLP_ENDPOINT, or no traces",
		Doc:   "OpenTelemetry collector that takes traces by OTLP over HTTP, such as `http://collector:4318`.",
		Into:  func(c *Config) any { return &c.OTelEndpoint },
		Check: func(c *Config) error { return telemetry.CheckEndpoint(c.OTelEndpoint) }},
}

// switchTracer follows revisions to the switches, where traces are taken.
func (p *parts) switchTracer() controller.Tracer {
	if p.tracer == nil {
		return nil
	}
	return p.tracer
}

// committed follows changes of the API, where traces are taken.
func (p *parts) committed() func(ctx context.Context, operation string, revision uint64, began time.Time) {
	if p.tracer == nil {
		return nil
	}
	return p.tracer.Committed
}
