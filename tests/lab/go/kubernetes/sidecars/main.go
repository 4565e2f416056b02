// sidecars is three small programs that the module proxy does not serve as such, in one binary that acts by its name:
// csi-node-driver-registrar (tells the kubelet of a CSI driver), livenessprobe (CSI Probe as HTTP /healthz) and
// grpc_health_probe (with which Longhorn's instance manager waits for its processes). They know the flags Longhorn uses.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	programs := map[string]func() error{
		"csi-node-driver-registrar": register,
		"livenessprobe":             serveLiveness,
		"grpc_health_probe":         probeHealth,
	}
	name := filepath.Base(os.Args[0])
	program, known := programs[name]
	if !known {
		log.Fatalf("unknown program name %q", name)
	}
	if err := program(); err != nil {
		log.Fatal(err)
	}
}

// connect never asks DNS: "passthrough" hands the address to the dialer as it is.
func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func csiFlags() *string {
	flag.Int("v", 0, "verbosity, ignored")
	return flag.String("csi-address", "/csi/csi.sock", "socket of the CSI driver")
}

type registrationServer struct {
	registration.UnimplementedRegistrationServer
	driver, endpoint string
}

func (s *registrationServer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: s.driver, Endpoint: s.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (s *registrationServer) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("the kubelet refused the driver: %s", status.Error) // the kubelet restarts us, which tries again
	}
	log.Printf("%s is registered", s.driver)
	return &registration.RegistrationStatusResponse{}, nil
}

func register() error {
	address := csiFlags()
	endpoint := flag.String("kubelet-registration-path", "", "socket of the CSI driver as the kubelet sees it")
	flag.Parse()
	conn, err := connect("unix://" + *address)
	if err != nil {
		return err
	}
	// the driver starts beside us and may not listen yet: wait for it
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(
		context.Background(), &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	socket := "/registration/" + info.GetName() + "-reg.sock"
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, &registrationServer{driver: info.GetName(), endpoint: *endpoint})
	return server.Serve(listener)
}

func serveLiveness() error {
	address := csiFlags()
	port := flag.String("health-port", "9808", "port of /healthz")
	flag.Parse()
	conn, err := connect("unix://" + *address)
	if err != nil {
		return err
	}
	driver := csi.NewIdentityClient(conn)
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		answer, err := driver.Probe(ctx, &csi.ProbeRequest{})
		if err != nil || (answer.GetReady() != nil && !answer.GetReady().GetValue()) {
			http.Error(w, "not ready", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return http.ListenAndServe(":"+*port, nil)
}

func probeHealth() error {
	address := flag.String("addr", "", "host:port of the gRPC service")
	flag.Parse()
	conn, err := connect("passthrough:///" + *address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("status %s", answer.GetStatus())
	}
	return nil
}
