// Drains a node as Cluster API's machine controller does when a Machine is deleted: with that controller's own drain
// package, its intervals, and its wait for volumes. No management cluster: there are no MachineDrainRules.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/core/reconcilers/machine/drain"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// drainRetryInterval and waitForVolumeDetachRetryInterval of the machine controller.
const again = 20 * time.Second

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: %s NODE", os.Args[0]))
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme} {
		fail(add(scheme))
	}
	kubeconfig, err := config.GetConfig()
	fail(err)
	workload, err := client.New(kubeconfig, client.Options{Scheme: scheme})
	fail(err)
	helper := &drain.Helper{
		Client:             fake.NewClientBuilder().WithScheme(scheme).Build(),
		RemoteClient:       workload,
		GracePeriodSeconds: -1,
	}
	ctx, name, started := context.Background(), os.Args[1], metav1.Now()
	retry("drain", func() (string, error) { return drainNode(ctx, helper, name, started) })
	retry("volumes", func() (string, error) { return attached(ctx, workload, name) })
}

func drainNode(ctx context.Context, helper *drain.Helper, name string, started metav1.Time) (string, error) {
	node := &corev1.Node{}
	if err := helper.RemoteClient.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return "", err
	}
	if err := helper.CordonNode(ctx, node); err != nil {
		return "", err
	}
	namespace := metav1.ObjectMeta{Namespace: metav1.NamespaceDefault}
	cluster, machine := &clusterv1.Cluster{ObjectMeta: namespace}, &clusterv1.Machine{ObjectMeta: namespace}
	pods, err := helper.GetPodsForEviction(ctx, cluster, machine, name)
	if err != nil || len(pods.Pods()) == 0 {
		return "", err
	}
	return helper.EvictPods(ctx, pods).ConditionMessage(started), nil
}

// attached says what is still attached to the node, by either of the two signs that the controller looks at.
func attached(ctx context.Context, workload client.Client, name string) (string, error) {
	node, attachments := &corev1.Node{}, &storagev1.VolumeAttachmentList{}
	if err := workload.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return "", err
	}
	if err := workload.List(ctx, attachments); err != nil {
		return "", err
	}
	var found []string
	for _, volume := range node.Status.VolumesAttached {
		found = append(found, string(volume.Name))
	}
	for _, attachment := range attachments.Items {
		if attachment.Spec.NodeName == name && attachment.Status.Attached {
			found = append(found, attachment.Name)
		}
	}
	return strings.Join(found, ", "), nil
}

// retry asks again until nothing is left to wait for, and prints what is.
func retry(what string, left func() (string, error)) {
	for {
		message, err := left()
		fail(err)
		if message == "" {
			fmt.Printf("%s: done\n", what)
			return
		}
		fmt.Printf("%s: %s\n", what, message)
		time.Sleep(again)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
