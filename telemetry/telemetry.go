// Package telemetry follows changes by OpenTelemetry: from the request of the
// API by the commit and the compilation to the barrier of each switch.
package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

const (
	// exportTime bounds one try to reach the collector, with its repetitions.
	exportTime = 5 * time.Second
	// flushTime bounds how long the end waits for the collector.
	flushTime = 3 * time.Second
	// complainEvery is how often a collector that does not answer is logged.
	complainEvery = time.Minute
)

// Tracer sends spans. A nil Tracer does nothing.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	journey  journey
}

// New is a Tracer that sends to an endpoint (http://host:4318), or to that of
// the environment (OTEL_EXPORTER_OTLP_ENDPOINT) where that is ""; nil when
// neither says one. It does not wait for the collector.
func New(ctx context.Context, endpoint, version string, log *slog.Logger) (*Tracer, error) {
	options := []otlptracehttp.Option{
		otlptracehttp.WithTimeout(exportTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: exportTime, MaxElapsedTime: exportTime}),
	}
	switch {
	case endpoint != "":
		target, err := tracesURL(endpoint)
		if err != nil {
			return nil, err
		}
		options = append(options, otlptracehttp.WithEndpointURL(target))
	case !inEnvironment():
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	complainTo(log)
	name, _ := os.Hostname()
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "planck"), attribute.String("service.version", version), attribute.String("service.instance.id", name),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OpenTelemetry: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter, sdk.WithExportTimeout(exportTime)), sdk.WithResource(about))
	return &Tracer{provider: provider, tracer: provider.Tracer("planck", trace.WithInstrumentationVersion(version))}, nil
}

// tracesURL is where an endpoint takes traces.
func tracesURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is not the URL of a collector: http://host:4318", endpoint)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// CheckEndpoint refuses what is no URL of a collector; "" is none.
func CheckEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	_, err := tracesURL(endpoint)
	return err
}

func inEnvironment() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != ""
}

// complainTo logs that spans are lost, now and then.
func complainTo(log *slog.Logger) {
	sometimes := rate.Sometimes{Interval: complainEvery}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		sometimes.Do(func() { log.Warn("traces do not reach the collector, and are lost", "error", err) })
	}))
}

// Close sends what waits, if the collector takes it at once.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return t.provider.Shutdown(ctx)
}
