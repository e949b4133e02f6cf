package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"planck/controller"
	"planck/network"
)

// metadataService makes the metadata service from the configuration.
func metadataService(cfg *Config, log *slog.Logger, store *network.Store, registry prometheus.Registerer) (*controller.Metadata, error) {
	config, err := novaTLS(cfg)
	if err != nil {
		return nil, &configError{err}
	}
	return controller.NewMetadata(controller.MetadataConfig{
		Nova: &url.URL{
			Scheme: cfg.NovaMetadataProtocol,
			Host:   net.JoinHostPort(cfg.NovaMetadataHost, strconv.Itoa(cfg.NovaMetadataPort)),
		},
		SharedSecret: cfg.MetadataSecret, TLS: config, View: store.View, Logger: log, Registry: registry,
	}), nil
}

// novaTLS is how Nova's metadata service is trusted, and told who asks.
func novaTLS(cfg *Config) (*tls.Config, error) {
	config := &tls.Config{InsecureSkipVerify: cfg.NovaMetadataInsecure, MinVersion: tls.VersionTLS12}
	if cfg.NovaMetadataCA != "" {
		pem, err := os.ReadFile(cfg.NovaMetadataCA)
		if err != nil {
			return nil, fmt.Errorf("[metadata] auth_ca_cert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("[metadata] auth_ca_cert: %s has no certificate", cfg.NovaMetadataCA)
		}
	}
	if cfg.NovaMetadataCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.NovaMetadataCert, cfg.NovaMetadataKey)
		if err != nil {
			return nil, fmt.Errorf("[metadata] nova_client_cert, nova_client_priv_key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// checkNovaMetadata sees to it that a certificate and its key are both there or
// neither.
func (l *loader) checkNovaMetadata() {
	if c := l.config; (c.NovaMetadataCert == "") != (c.NovaMetadataKey == "") {
		l.fail(errors.New("nova_client_cert and nova_client_priv_key go together"),
			findOption("metadata", "nova_client_cert"), findOption("metadata", "nova_client_priv_key"))
	}
}
