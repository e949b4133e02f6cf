package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"planck/test/lab"
)

// apiTimeout bounds each request.
const apiTimeout = 10 * time.Second

// lookUpPort completes a VM's port from the API, as Nova does: MAC and device
// of the port, MTU of its network. What is given already stays.
func lookUpPort(ctx context.Context, api string, port lab.VMPort) (lab.VMPort, error) {
	var p struct {
		Port struct {
			MAC       string `json:"mac_address"`
			NetworkID string `json:"network_id"`
			DeviceID  string `json:"device_id"`
		} `json:"port"`
	}
	if err := get(ctx, api, "ports/"+url.PathEscape(port.ID), &p); err != nil {
		return port, err
	}
	port.MAC, port.DeviceID = p.Port.MAC, p.Port.DeviceID
	if port.MTU != 0 {
		return port, nil
	}
	var n struct {
		Network struct {
			MTU int `json:"mtu"`
		} `json:"network"`
	}
	if err := get(ctx, api, "networks/"+url.PathEscape(p.Port.NetworkID), &n); err != nil {
		return port, err
	}
	port.MTU = n.Network.MTU
	return port, nil
}

func get(ctx context.Context, api, resource string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	address := strings.TrimSuffix(api, "/") + "/v2.0/" + resource
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("--api: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("GET %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", address, resp.Status, strings.TrimSpace(string(data)))
	}
	if err := json.Unmarshal(data, body); err != nil {
		return fmt.Errorf("GET %s: %w", address, err)
	}
	return nil
}
