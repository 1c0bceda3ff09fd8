"""All that knows USB: the backend, finding interfaces, the open port."""
